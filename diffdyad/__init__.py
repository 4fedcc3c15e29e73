"""diffdyad: the face that answers. Context-guided FLAME motion for dyadic conversation."""

__version__ = "0.1.0"
