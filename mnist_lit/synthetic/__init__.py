"""Synthetic sheets: pictures of writing, drawn with MNIST's digits, from which the detector learns.

A sheet's path: `glyphs`, `letters` and `strokes` (shapes of characters) -> `pens` (how a pen draws
one) -> `texts` and `layouts` (what is written, and where) -> `surroundings` (lines, scribbles,
paper) -> `targets` (the network's target).
"""
