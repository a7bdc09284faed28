#!/usr/bin/env bash
# run.sh ADDRESS MODEL INPUT OUTPUT     needs a JDK, 17 or newer, and Maven
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mvn --quiet --batch-mode -Dstyle.color=never --file "$here/pom.xml" package >&2
exec java -cp "$here/target/attend-0.1.0.jar:$here/target/dependency/*" Attend "$@"
