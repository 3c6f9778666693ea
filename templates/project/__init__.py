"""__REFERENCE__"""
