"""Tests that only emulated boards need."""
