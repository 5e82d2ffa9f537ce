"""The rules: arrays in, arrays out; no clock, no I/O, no Ray, no SQL."""
