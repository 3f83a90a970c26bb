"""What ftnids knows of each IDS: how to start it, its minimal configuration, our rules."""
