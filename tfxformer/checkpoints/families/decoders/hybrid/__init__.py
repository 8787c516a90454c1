"""Decoders whose layers have other mixers than attention, or share what a cache holds, one page each."""
