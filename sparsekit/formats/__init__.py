"""Weight formats: CSR at every border, packed in memory."""

from sparsekit.formats.csr import CSR

__all__ = ["CSR"]
