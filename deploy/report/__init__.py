"""From figures to a report: JSON, Markdown, HTML; what changed since an earlier one."""
