"""Where the values of prompts are kept: immutable bytes, named by the digest of the prompt."""

from prompts_store.blobs.files import Files
from prompts_store.blobs.interface import BlobEntry, Blobs
from prompts_store.blobs.local import LocalBlobs
from prompts_store.blobs.memory import MemoryBlobs

__all__ = ["BlobEntry", "Blobs", "Files", "LocalBlobs", "MemoryBlobs"]
