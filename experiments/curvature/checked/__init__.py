"""Open this package for statements that are checked one by one on drawn problems: their record, and those of others."""
