"""Makes probabilities of labels mean what they say: fitted on rows whose answers are known, and measured.

Pure arithmetic, without a device, a store or a clock.
"""
