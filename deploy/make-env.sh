#!/bin/sh
# Prints env.example with random values: sh deploy/make-env.sh > deploy/.env
set -eu
umask 077
while IFS= read -r line; do
    case $line in
    *=hex) line=${line%hex}$(openssl rand -hex 24) ;;
    *=base64) line=${line%base64}$(openssl rand -base64 32) ;;
    esac
    printf '%s\n' "$line"
done <"$(dirname "$0")/env.example"
