"""bmm: balanced multimodal learning, from raw media to a table beside the published numbers."""

__version__ = "0.1.0"
