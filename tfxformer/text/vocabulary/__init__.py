"""Vocabularies: trained from texts, trimmed to what texts need."""
