"""Weight formats: CSR in every API, packed in memory; the table of data types."""

from sparsekit.formats.csr import CSR

__all__ = ["CSR"]
