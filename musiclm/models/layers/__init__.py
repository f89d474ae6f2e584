"""Layers and single-token inference engines that several architectures share."""
