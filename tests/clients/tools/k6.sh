# shellcheck shell=bash
# k6 writes no files: it prints the output's SHA-256, which is that of the checked output.
go_tool go.k6.io/k6@v1.8.1
run=$TREE/examples/clients/k6/run.sh
"$run" "$ADDRESS" t5-tiny "$INPUT" 2>&1 | tee "$SCRATCH/k6.log"
grep -q "sha256: $(sha256sum "$EXPECTED" | cut -d ' ' -f 1)" "$SCRATCH/k6.log"
refused 'notfound' 'model: expected a loaded model, got .{1,4}no-such' 'field model: ' -- "$run" "$ADDRESS" no-such "$INPUT"
sed -i 's/64 << 20/4 << 20/' "$TREE/examples/clients/k6/attend.js"
refused 'received message larger than max \(41943[0-9]+ vs\. 4194304\)' -- "$run" "$ADDRESS" t5-tiny "$INPUT"
echo "version: v1.8.1"
