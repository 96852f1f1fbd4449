"""Work that a service does for its log at intervals: backups and anchors."""
