"""Upload profiles to CleverTap in bulk, end-to-end encrypted, and account for every line."""

__version__ = "0.1.0"
