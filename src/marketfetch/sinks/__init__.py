"""The stores that come with marketfetch; each is loaded, with what it needs, when it is first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
