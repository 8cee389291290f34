"""Networks of plain torch: whatever a function returns."""
