"""What is measured; a package and no namespace, because pyarrow 17 installs a package of this name."""
