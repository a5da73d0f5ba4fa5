"""Verify a model folder: checksums, sparse layers against float64, and stored outputs."""

from sparsekit.checkpoint.verification.verifying import VerificationReport, verify

__all__ = ["VerificationReport", "verify"]
