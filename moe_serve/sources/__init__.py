"""Where the judge gets histories from: exporters, a Prometheus server, a recorded file."""
