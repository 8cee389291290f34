"""Networks in exported files: predictions can be measured, layers can't be looked into."""
