"""The gateway's HTTP side: guards, streams, and one package per dialect."""
