"""Performances of scores: what a player adds to the notes, per note, for keyboard instruments and for drums.

Arrays are numpy. N notes of one part, M onsets: notes that begin together are one onset.
"""
