"""Producers: raw memories, validated, onto the stream."""
