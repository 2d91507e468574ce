"""The rig: what every benchmark stands on. Nothing here measures anything by itself."""
