"""The stages of `scripts/make_base.py`, from text and datasets to the folder `base/`."""
