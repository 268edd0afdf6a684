module moe-serve/tests/cluster/tools/pause

go 1.25.0
