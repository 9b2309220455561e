"""Where bytes are kept: the values of prompts (blobs) and data files (contents), named by their digests."""

from prompts_store.blobs.contents import ContentWriter, LocalContents
from prompts_store.blobs.files import Files
from prompts_store.blobs.interface import BlobEntry, Blobs
from prompts_store.blobs.local import LocalBlobs
from prompts_store.blobs.memory import MemoryBlobs

__all__ = [
    "BlobEntry",
    "Blobs",
    "ContentWriter",
    "Files",
    "LocalBlobs",
    "LocalContents",
    "MemoryBlobs",
]
