"""The bytes of PyTorch files, read without running what is in them. Nothing else of the model is used."""
