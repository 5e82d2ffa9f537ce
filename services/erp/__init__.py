"""Connectors to ERPs: stock in both directions. See connector.py for what an ERP must be able to do, and docs/erp.md."""
