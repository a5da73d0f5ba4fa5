"""Whether a model folder is whole, and whether this machine computes with it what it should."""

from sparsekit.checkpoint.verification.verifying import VerificationReport, verify

__all__ = ["VerificationReport", "verify"]
