"""What every stage of an attempt stands on: the job under its lease, the base model, slices of the device."""
