"""The Valkey server that a hub starts if its settings name no Redis."""
