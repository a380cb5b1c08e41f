"""The service's wire, sans I/O: paths, headers, documented limits."""

from __future__ import annotations

__all__ = [
    "ACCOUNT_HEADER",
    "HPKE_MEDIA_TYPE",
    "JSON_MEDIA_TYPE",
    "MAX_CONCURRENT_UPLOADS",
    "MAX_RECORDS",
    "PASSCODE_HEADER",
    "UPLOAD_PATH",
]

UPLOAD_PATH = "/1/upload"
HPKE_MEDIA_TYPE = "application/octet-stream+hpke"
JSON_MEDIA_TYPE = "application/json"
ACCOUNT_HEADER = "X-CleverTap-Account-Id"
PASSCODE_HEADER = "X-CleverTap-Passcode"
MAX_RECORDS = 1000
MAX_CONCURRENT_UPLOADS = 15
