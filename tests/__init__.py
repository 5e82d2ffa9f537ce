"""The tests mirror the floors."""
