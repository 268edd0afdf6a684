module moe-serve/tools/node/programs/pause

go 1.25.0
