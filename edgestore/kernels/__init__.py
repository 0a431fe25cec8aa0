"""Checksums, erasure coding and aligned buffers: in C where it is built, else by the reference."""

from edgestore.kernels.reference import crc32, crc32_combine, crc32c, crc32c_combine, crc64nvme, crc64nvme_combine, page_crcs

__all__ = ["crc32", "crc32_combine", "crc32c", "crc32c_combine", "crc64nvme", "crc64nvme_combine", "page_crcs"]
