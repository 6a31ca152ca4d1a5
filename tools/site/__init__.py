"""The site, out of what stands in the repository: `hatch run site:build`."""
