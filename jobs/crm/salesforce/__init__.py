"""Salesforce: records by sObject Collections on an external id."""
