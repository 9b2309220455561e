"""Where bytes are kept: the values of prompts (blobs) and data files (contents), named by their digests."""

from prompts_store.blobs.address import BlobAddress
from prompts_store.blobs.contents import Contents, ContentWriter, LocalContents
from prompts_store.blobs.files import Files
from prompts_store.blobs.interface import BlobEntry, Blobs, Place
from prompts_store.blobs.local import LocalBlobs
from prompts_store.blobs.memory import MemoryBlobs

__all__ = [
    "BlobAddress",
    "BlobEntry",
    "Blobs",
    "ContentWriter",
    "Contents",
    "Files",
    "LocalBlobs",
    "LocalContents",
    "MemoryBlobs",
    "Place",
]
