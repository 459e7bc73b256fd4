"""The one sentence that goes with every answer."""

__all__ = ["NOTICE", "NOTICE_HEADER"]

NOTICE = "Research use only: not a medical device, not for diagnosis. A pathologist must check it."
NOTICE_HEADER = "X-Research-Use-Only"
