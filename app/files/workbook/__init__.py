"""Workbooks (XLSX, ECMA-376): a process of its own turns one sheet into rows of text, which are read as those of a CSV.

A workbook is a ZIP of XML that must be there as a whole, and the library that reads it holds a sheet in memory as one
rectangle. So it is read where an end by its limits of memory and CPU harms nobody else (`extract`); what comes out is
lines (`protocol`), which the service reads as they come (`sheet_reader`).
"""
