"""Tests of the charts, over what real Helm renders."""
