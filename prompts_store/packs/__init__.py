"""Decision packs: ids of questions with the versions that answer them, versioned and addressed like tasks."""
