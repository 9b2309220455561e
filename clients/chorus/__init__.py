"""Client of a Chorus server: `from chorus import Client`."""
