"""Salesforce: contacts by sObject Collections on an external id."""
