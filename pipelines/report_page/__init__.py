"""The report page: one HTML file from which someone who never saw the project learns what each variant is good at."""
