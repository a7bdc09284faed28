# shellcheck shell=bash
example java src/main/java/Attend.java
echo "version: grpc-java $(sed -n 's/.*<grpc.version>\(.*\)<.*/\1/p' "$TREE/examples/clients/java/pom.xml")"
